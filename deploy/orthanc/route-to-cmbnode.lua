-- Orthanc sends the MR series of each stable study to the node, in one job (one association; shown and retried in Orthanc).
-- What the node itself made (SR, SEG, Secondary Capture) is not sent back. "cmbnode" is the name in DicomModalities.
function OnStableStudy(studyId, tags, metadata, origin)
  local series = {}
  for _, one in ipairs(ParseJson(RestApiGet('/studies/' .. studyId .. '/series'))) do
    if one['MainDicomTags']['Modality'] == 'MR' then
      table.insert(series, one['ID'])
    end
  end
  if #series > 0 then
    RestApiPost('/modalities/cmbnode/store', DumpJson({ Resources = series, Synchronous = false }))
  end
end
