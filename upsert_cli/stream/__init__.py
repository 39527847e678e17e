"""The way of an item: the listing of this folder, from what the user names to what the collection holds.

`sources` finds the files, `formats` (with `jsonl`, `delimited` and `parquet`) reads their rows, `items` checks them,
`documents` makes the text and the metadata, `windows` gathers them, `vectors` embeds what changed, `records` and
`writer` store it.
"""
