"""A store of documents in a folder, in the order in which its files are built upon one another.

    stored_numbers   keys and values as few bytes
    shards           files of tensors, which never change
    store_index      which tensors are in which file, and when they were used
    tensor_folder    both together: tensors by key, for several processes, bounded in size
    disk_documents   documents by their token ids, of one checkpoint
    disk_store       their keys and values, before any question
    memory_store     their memory without a query
"""
