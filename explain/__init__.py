"""Where, and why, a model hears emotion: attention, tied to phones, words and acoustic cues."""
