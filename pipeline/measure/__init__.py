"""How large is a dark region, and does it have the shape of a microbleed?"""
