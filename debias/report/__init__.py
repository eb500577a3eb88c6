"""One HTML page that sets runs side by side: what they answer, what changed over a baseline, and how it was measured.

`loading` reads folders, `entries` names them and finds the baseline, `numbers` writes and subtracts, `verdict` says it
in a sentence, `stylizers` what lessens it, `cues` and `series` count, `pictures` and `strips` draw; `table`,
`cue_sections`, `curve_sections`, `budgets` and `notes` make the sections, and `page` puts them together.
"""
