// Prints, as JSON, the centres that Cornerstone's adapters read from a report: node read_report.mjs SR SOURCE_FOLDER
import fs from 'fs';
import path from 'path';
import dcmjs from 'dcmjs';
import { adaptersSR } from '@cornerstonejs/adapters';
import { metaData } from '@cornerstonejs/core';

const read = file =>
  dcmjs.data.DicomMetaDictionary.naturalizeDataset(dcmjs.data.DicomMessage.readFile(fs.readFileSync(file).buffer).dict);
const first = items => (Array.isArray(items) ? items[0] : items);

const [report, folder] = process.argv.slice(2);
const images = {};
const planes = {};
for (const name of fs.readdirSync(folder)) {
  const image = read(path.join(folder, name));
  for (let frame = 1; frame <= (image.NumberOfFrames || 1); frame++) {
    const own = image.PerFrameFunctionalGroupsSequence?.[frame - 1];
    const shared = first(image.SharedFunctionalGroupsSequence);
    const values = (group, attribute) =>
      (own ? first(own[group] ?? shared[group])[attribute] : image[attribute]).map(Number);
    const id = `image:${image.SOPInstanceUID}:${frame}`;
    images[`${image.SOPInstanceUID}:${frame}`] = id;
    const axes = values('PlaneOrientationSequence', 'ImageOrientationPatient');
    const [rowPixelSpacing, columnPixelSpacing] = values('PixelMeasuresSequence', 'PixelSpacing');
    planes[id] = {
      frameOfReferenceUID: image.FrameOfReferenceUID,
      rowCosines: axes.slice(0, 3),
      columnCosines: axes.slice(3),
      imagePositionPatient: values('PlanePositionSequence', 'ImagePositionPatient'),
      rowPixelSpacing,
      columnPixelSpacing,
    };
  }
}
const get = (kind, id) => (kind === 'imagePlaneModule' ? planes[id] : undefined);
metaData.addProvider(get, 1000);
const state = adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(read(report), images, { get });
const points = (state.Probe ?? []).map(one => [one.TrackingUniqueIdentifier, one.annotation.data.handles.points[0]]);
console.log(JSON.stringify(points));
process.exit(0);
