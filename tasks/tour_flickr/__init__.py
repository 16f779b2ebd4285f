"""Tour recommendation on Flickr photo trajectories of five cities."""
