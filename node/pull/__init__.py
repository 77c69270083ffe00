"""How do new studies come from a PACS that does not route? They are looked for on a schedule, and fetched."""
