"""Side by side with dockerd on this machine: `./dev bench`. Not tests: nothing fails here for being slow."""
