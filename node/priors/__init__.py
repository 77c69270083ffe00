"""Step 3: with which earlier study of the patient is a study compared, and how is it fetched from the PACS?"""
