"""One HTML page that sets runs side by side: what they answer, what changed over a baseline, and how it was measured.

`loading` reads folders, `entries` names them and finds the baseline, `numbers` writes and subtracts, `verdict` says it in
a sentence, `cues` counts shapes and textures, `pictures` draws, `strips` shows images, `page` puts it together.
"""
