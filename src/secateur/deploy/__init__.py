"""Files for other runtimes: `exporters` writes them, `runtimes` opens them as predictors."""
