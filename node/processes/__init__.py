"""How do the processes of the node run: one by one, private, and seen to be alive?"""
