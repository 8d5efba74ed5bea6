"""Images, videos and streams through a predictor: what is read, what is found in it, what is written of it."""
