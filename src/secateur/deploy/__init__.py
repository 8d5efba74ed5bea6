"""Export to other runtimes: `exporters` writes the files, `runtimes` opens them as predictors."""
