"""What has to be done for one service, and why: its number, mode, history and waits."""
