"""Step 1: an instance arrives. It is bounded, written and recorded before success is answered."""
