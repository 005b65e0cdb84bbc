"""Members' judgement: blind comparisons of two versions, and what their votes say (docs/judging.md).

`prompts` and `pairs` make what is shown. `strength` says how much better a version is, `rule` when that is certain,
`odd` whose votes look strange; `judgement` puts them together and `words` says it.
"""
