"""Commands of earlier versions: each names its successor."""
