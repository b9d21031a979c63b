"""Does the world fit the profile, and does a stored run add up?"""
