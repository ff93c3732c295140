"""Two-dimensional DPO: segments of responses, each with the number that its aspects were collapsed to."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.parts import Part
from unipref.objectives.segments import by_segment, matched, segments
from unipref.objectives.terms import Term


def matched_segments(name: str, beta: float, link: Part) -> Term:
    """A term on the matched segments of a pair, with the log-ratios of segments times `beta` as scores."""
    return Term(name, by_segment(beta), matched(), link)


SEGMENT_EXCEPTIONS = {
    "L2": "segments are multiplied by the judge's numbers, so a shift does not cancel",
    "G1": "there is a log 2 for every matched pair of segments",
    "G4": "segments are multiplied by the judge's numbers, so a shift does not cancel",
}
SEGMENT_FIELDS = {  # log-ratios (1, -.5, .3) and (.4, -.2) of segments with numbers (4, 1, 3) and (2, 0)
    "len_chosen": 3,
    "len_rejected": 2,
    "token_logp": [-1.0, -1.5, -1.7, -1.6, -1.2],
    "token_ref_logp": [-2.0, -1.0, -2.0, -2.0, -1.0],
    "token_segment": [0.0, 1.0, 2.0, 0.0, 1.0],
    "token_segment_score": [4.0, 1.0, 3.0, 2.0, 0.0],
}


@method(
    "dpo_2d",
    source="arXiv:2410.19720 Eq. 6",
    formula="-sum_i log sigmoid(r_c,i beta h_c,i - r_r,i beta h_r,i), best chosen with worst rejected segments",
    needs=("chosen", "rejected", "ref_logp", "segment", "segment_score"),
    citation=Citation(
        "2D-DPO: Scaling Direct Preference Optimization with 2-Dimensional Supervision",
        (
            "Shilong Li",
            "Yancheng He",
            "Hui Huang",
            "Xingyuan Bu",
            "Jiaheng Liu",
            "Hangyu Guo",
            "Weixun Wang",
            "Jihao Gu",
            "Wenbo Su",
            "Bo Zheng",
        ),
        2024,
        "2410.19720",
    ),
    exceptions=SEGMENT_EXCEPTIONS,
    limits=[
        Limit(
            {}, "dpo", where={"segment": 0.0, "segment_score": 1.0}, note="one segment a side, both with the number 1"
        )
    ],
    # chosen segments by number: 4 (1.0), 3 (0.3), 1 (-0.5); rejected from the worst: 0 (-0.2), 2 (0.4);
    # two are matched: .1 (4 * 1 - 0 * -.2) = .4 and .1 (3 * .3 - 2 * .4) = .01: ln(1 + e^-.4) + ln(1 + e^-.01)
    golden=[({"beta": 0.1}, SEGMENT_FIELDS, 1.2011749)],
)
def dpo_2d(*, beta: float = 0.1) -> Term:
    """DPO on segments: the chosen response's best segments against the rejected one's worst, each times its number.

    Numbers are data: collapse a judge's aspects to one per segment first. Losses are summed over the matched segments
    of a pair, so long responses weigh more, and a segment that is cut in two equal halves counts twice. A rejected
    segment with the number 0 is not pushed at all, and one with a *higher* number is pushed down harder: give numbers
    that say how much a segment matters, or invert those of rejected responses. Tokens outside every segment, and
    segments without a number, do not count.

    As many of the best chosen and the worst rejected segments are matched as both sides have, rank by rank, and each
    match has a link of its own, as in Eq. 6 and in the code of its robust successor (github.com/nachiketapatil/
    Robust-2D-DPO).

    Args:
        beta: 0.1 in that code.
    """
    return matched_segments("dpo_2d", beta, segments())
