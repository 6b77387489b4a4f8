"""Several fine-tunes of one base in one report: which of these?"""
