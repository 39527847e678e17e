"""A task becomes a page: `charts` draws its course, `page` puts everything into the template."""
