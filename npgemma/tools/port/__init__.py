"""Comparing the arrays of another program, a *foreign port*, with those of this one, and checking its inputs."""
