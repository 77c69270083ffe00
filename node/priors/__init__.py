"""Which earlier studies does the PACS have, and how do they come? Asked for before a study is analysed."""
