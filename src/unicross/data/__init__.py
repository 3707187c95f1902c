"""Data: from files to items, and from items to the pixels and tokens that training asks for.

`load.load_items` reads a folder or a captions file of one of the `formats` into records, and `assembly` makes
checked `items.Items` of them. `pixels` decodes their pictures once, `tokens` tokenises their captions once,
`views` augments pictures on the device.
"""
