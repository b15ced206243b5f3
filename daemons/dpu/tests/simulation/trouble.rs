//! What is done to a node between two pumps, drawn from the seed.

use std::time::Duration;

use crate::node::{Node, STALL_TIMEOUT};

/// One kind of trouble. Full rings and tables are not among them: they are a matter of the node's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A worker's process dies.
    Kill,
    /// A worker is told to end.
    Leave,
    /// A worker stands still.
    Stall,
    /// Everything stands still: one slow step of the machine.
    SlowStep,
    /// The DPA stands still.
    DpaStall,
    /// A sidecar stands still.
    LaneStall,
    /// The DPA's process dies, and another takes its place.
    DpaReplaced,
    /// A sidecar's process dies, and another takes its place.
    DpuReplaced,
    /// A sidecar's link is cut.
    LinkCut,
    /// All clients of a sidecar leave at once.
    HangUp,
    /// The hostile worker writes frames of all kinds.
    Forge,
    /// The hostile worker announces large answers and does not send them.
    Withhold,
}

impl Trouble {
    /// Those of workers and clients are more frequent: they excuse little, so most is learnt from them.
    pub(crate) const DRAWN: [Self; 21] = [
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::Leave,
        Self::Leave,
        Self::Leave,
        Self::Leave,
        Self::Stall,
        Self::Stall,
        Self::Forge,
        Self::Forge,
        Self::Forge,
        Self::Withhold,
        Self::HangUp,
        Self::SlowStep,
        Self::DpaStall,
        Self::LaneStall,
        Self::DpaReplaced,
        Self::DpuReplaced,
        Self::LinkCut,
    ];

    /// Under which name it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "trouble: worker killed",
            Self::Leave => "trouble: worker leaves",
            Self::Stall => "trouble: worker stalls",
            Self::SlowStep => "trouble: slow step",
            Self::DpaStall => "trouble: DPA stalls",
            Self::LaneStall => "trouble: DPU stalls",
            Self::DpaReplaced => "trouble: DPA replaced",
            Self::DpuReplaced => "trouble: DPU replaced",
            Self::LinkCut => "trouble: link of DPU cut",
            Self::HangUp => "trouble: clients hang up",
            Self::Forge => "trouble: frames forged",
            Self::Withhold => "trouble: answers withheld",
        }
    }
}

impl Node {
    /// Does it, if there is anybody to do it to.
    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        let (seat, lane) = (self.draw.index(self.seats.len()), self.draw.index(self.lanes.len()));
        let happened = match trouble {
            Trouble::Kill => {
                let back = self.soon(5000);
                self.seats[seat].kill(&mut self.dpa, &mut self.ledger, self.now, back)
            }
            Trouble::Leave => self.seats[seat].leave(&mut self.dpa, &mut self.ledger, self.now),
            Trouble::Stall => {
                let until = self.within(STALL_TIMEOUT / 4, STALL_TIMEOUT * 3);
                self.seats[seat].stall(&mut self.ledger, until)
            }
            Trouble::SlowStep => {
                self.now = self.within(Duration::from_millis(1), STALL_TIMEOUT);
                self.ledger.history.still_node(self.now);
                true
            }
            Trouble::DpaStall => self.stall_dpa(),
            Trouble::LaneStall => self.stall_lane(lane),
            Trouble::DpaReplaced => self.replace_dpa(),
            Trouble::DpuReplaced => self.replace_dpu(lane),
            Trouble::LinkCut => {
                let notices = self.soon(3000);
                self.cut_lane(lane, notices)
            }
            Trouble::HangUp => {
                self.lanes[lane].hang_up(self.now);
                true
            }
            Trouble::Forge => self.forge(),
            Trouble::Withhold => {
                self.hostile.iter_mut().for_each(|hostile| hostile.withhold(4));
                self.hostile.is_some()
            }
        };
        if happened {
            self.ledger.note(trouble.name(), (seat ^ lane << 8) as u64, self.now);
        }
    }

    fn stall_dpa(&mut self) -> bool {
        // Seldom so long that the sidecars have to answer by themselves.
        let longest = if self.draw.once_in(8) { 700 } else { 20 };
        let until = self.within(Duration::from_millis(1), Duration::from_millis(longest));
        self.dpa_resumes = until;
        self.ledger.history.still_node(until);
        true
    }

    fn stall_lane(&mut self, lane: usize) -> bool {
        let until = self.within(Duration::from_millis(1), STALL_TIMEOUT * 2);
        let lane = &mut self.lanes[lane];
        lane.resumes = until;
        lane.caller.still = until;
        self.ledger.history.still_node(until);
        true
    }

    fn replace_dpu(&mut self, lane: usize) -> bool {
        let back = self.soon(2000);
        self.cut_lane(lane, self.now);
        let lane = &mut self.lanes[lane];
        lane.replace(&mut self.ledger, self.now);
        (lane.notices, lane.returns) = (None, back);
        true
    }

    fn forge(&mut self) -> bool {
        let stolen = self.stolen();
        let Some(hostile) = &mut self.hostile else { return false };
        hostile.forge(&mut self.draw, stolen, self.now);
        true
    }
}
