"""The hospital's side: network, queue, database and web. Imports :mod:`pipeline`, never :mod:`training`."""
