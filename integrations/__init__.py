"""Adapters of ScaleDown to other libraries, one file each; imported only where that library is used."""
