"""What does each `cmbnode` command do? One module a kind of command; heavy libraries are imported inside them."""
