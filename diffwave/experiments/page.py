def write_pages(out):
    return out
