"""How today's clients speak of builds: protocol buffers in gRPC in HTTP/2, over connections taken over from HTTP/1.1.

Nothing here knows what a build is. Whoever is at the other end is a stranger: all that is kept for him is bounded.
"""
