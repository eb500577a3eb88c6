"""Images and labels to views: loaders, cue conflict, attacks."""
