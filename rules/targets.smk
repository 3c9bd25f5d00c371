"""What a user asks for by name; `demo` is the default. A target makes its report and everything that the report shows."""


rule download:
    """optional: fetch the videos that `downloads` in the configuration names"""
    input:
        downloads,


rule evaluate:
    """scores and metrics of what `select` in the configuration names"""
    input:
        selected_results,


rule report:
    """one HTML page on what `select` in the configuration names"""
    input:
        target(PLAN.selected),


# Every target of workflow/targets.yaml, every table of a paper and every experiment becomes a rule with its name and
# description. The list of targets has those that people ask for: `python -m pipeline_lib experiments` lists the hundreds of
# experiments. Snakemake has no way to tell them apart, and lists what has a rule.
_asked = CONFIGURATION.tables | PLAN.targets | CONFIGURATION.experiments
if {"--list-target-rules", "--lt"} & set(sys.argv):
    _asked = PLAN.targets
for _name, _entry in _asked.items():
    if not workflow.is_rule(_name):

        rule:
            name:
                _name
            default_target: _name == "demo"
            input:
                target(_name),

        workflow.get_rule(_name).docstring = _entry.description
