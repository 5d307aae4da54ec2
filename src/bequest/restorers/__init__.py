"""restorers"""
