"""How are the parts of the node started, watched, and cleaned up after?"""
