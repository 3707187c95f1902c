"""Hygiene: what in data spoils training or its evaluation without being an error of any file.

`fingerprints` says what pictures are, `twins` which are the same, `captions` what is odd about texts;
`check` puts it together, `leaks` is the cheap part of it that an evaluation affords, `sheet` shows it and
`clean` writes what is left. Pairs that look wrong are found by `unicross.suspects`. Nothing is deleted.
"""
