"""What the API shows of containers, images and services: JSON made of the engine's values. Answers no request."""
