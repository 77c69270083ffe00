-- Orthanc sends every stable MR study that came from elsewhere to the node, and never sends back the node's own results.
-- "cmbnode" is the name of the node in Orthanc's DicomModalities.
function OnStableStudy(studyId, tags, metadata, origin)
  for _, series in ipairs(ParseJson(RestApiGet('/studies/' .. studyId .. '/series'))) do
    if series['MainDicomTags']['Modality'] == 'MR' then
      SendToModality(series['ID'], 'cmbnode')
    end
  end
end
