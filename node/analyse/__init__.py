"""Step 4: one analysis, one correction, and what each is compared with."""
