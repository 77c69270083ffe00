"""Step 2: when is a study complete, and what happens to it?"""
