"""What tests stand on: private daemons, the real clients, base images, and a look at what a daemon leaves behind."""
