"""A Flower app with a guard and a defense on its clients, and a server that turns malicious for one round."""
