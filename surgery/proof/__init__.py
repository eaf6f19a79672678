"""Floor 6: is the slim model the same function as the masked one, and what does it cost to run?"""
