-- Orthanc sends the MR series of each stable study to the node, in one job (one association; shown and retried in Orthanc).
-- A study also becomes stable when results arrive: a series is sent again only if it has other images than last time.
-- "cmbnode" is the name in DicomModalities; 4711 is a metadata number for users' own purposes (1024 and above).
local SENT = '4711'

function OnStableStudy(studyId, tags, metadata, origin)
  local series = {}
  for _, one in ipairs(ParseJson(RestApiGet('/studies/' .. studyId .. '/series'))) do
    local path = '/series/' .. one['ID'] .. '/metadata'
    local images = table.concat(one['Instances'], ' ')
    local known = ParseJson(RestApiGet(path .. '?expand'))
    if one['MainDicomTags']['Modality'] == 'MR' and known[SENT] ~= images then
      table.insert(series, one['ID'])
      RestApiPut(path .. '/' .. SENT, images)
    end
  end
  if #series > 0 then
    RestApiPost('/modalities/cmbnode/store', DumpJson({ Resources = series, Synchronous = false }))
  end
end
