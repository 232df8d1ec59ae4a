def tuned(label, family): return {}
