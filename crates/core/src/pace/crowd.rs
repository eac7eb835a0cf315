//! A cap on attempts at once, or a rate? What a bare 429 does not say, its neighbours show.
//!
//! When the first refusal is known, others are out. Under a cap it left most of them standing: they had come while
//! attempts doubled each round trip, so at least half of what is out found a place; and where one was answered meanwhile,
//! an attempt that left *after* the refused one was accepted. A window or a log that is used up accepts nothing that comes
//! later, and refuses all that is out; where its answers take long, what came earlier still stands, but nothing that left
//! after the refused one does. Its hint is also long, while a cap cannot know more than "soon".
//!
//! So a burst is taken for a cap if at least half of it was accepted, and either some of that left after the refused
//! attempt or no long wait was ordered. A wrong guess is soon refuted: by a row of refusals without an acceptance among
//! them, or by a refusal of so few at once that half of the cap was free; and the next one needs twice as many that were left
//! standing. A gate that is paced does not ask, because a bucket that is just exceeded mixes both as well.

/// What became of attempts around refusals. Times in seconds.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// When the first refused attempt of the burst left, and when that was known.
    from: f64,
    known: f64,
    /// How many were out then, it included.
    out: u32,
    /// Those of them that were accepted, and how many of these left after the refused one.
    accepted: u32,
    later: u32,
    refused: u32,
    /// A wait was ordered that no cap would order.
    long_wait: bool,
    /// When the first of the present row of refusals left, and how many they are.
    row: (f64, u32),
    /// How many at once the cap is taken for; zero if refusals are taken for a rate's.
    cap: u32,
    /// Caps that were none.
    mistakes: u32,
    /// When a burst was last met whose answers named their quota, and no wait.
    met: f64,
}

impl Crowd {
    /// Fewer accepted ones may have overtaken the refused one on the way.
    const LATER: u32 = 2;
    /// So many refusals in a row are no cap.
    const ROW: u32 = 8;
    /// A cap orders no longer wait, in seconds: whole seconds are the smallest that `Retry-After` can say.
    const SOON: f64 = 1.0;

    /// The first refusal of a burst, met while no rate was known, and the `hint` it gave; `out` attempts were on their way
    /// with it.
    pub(super) fn begin(&mut self, sent: f64, now: f64, out: u32, hint: Option<f64>) {
        let long_wait = hint.is_some_and(|hint| hint > Self::SOON);
        let &mut Self { mistakes, met, .. } = self;
        *self = Self { from: sent, known: now, out, refused: 1, long_wait, mistakes, met, ..Self::default() };
    }

    /// A refusal with quota left and no word of how long. True if that is news, and not one more of a burst that is known since.
    pub(super) fn met(&mut self, sent: f64, now: f64) -> bool {
        let news = sent >= self.met;
        if news {
            self.met = now;
        }
        news
    }

    /// One more refusal, while `out` attempts were on their way with it.
    pub(super) fn refused(&mut self, sent: f64, out: u32) {
        self.refused = self.refused.saturating_add(1);
        if self.row.1 == 0 {
            self.row.0 = sent;
        }
        self.row.1 = self.row.1.saturating_add(1);
        if self.is_cap() && (self.row.1 >= Self::ROW || out.saturating_mul(2) < self.cap) {
            self.cap = 0;
            self.mistakes += 1;
        }
    }

    /// An attempt that left at `sent` was accepted.
    pub(super) fn accepted(&mut self, sent: f64) {
        if sent > self.row.0 {
            self.row.1 = 0;
        }
        if self.out > 0 && sent <= self.known {
            self.accepted = self.accepted.saturating_add(1);
            self.later = self.later.saturating_add(u32::from(sent > self.from));
        }
    }

    /// Whether all that was out has been answered.
    pub(super) fn is_over(&self) -> bool {
        self.out > 0 && self.accepted + self.refused >= self.out
    }

    /// How many at once the burst left standing, if it shows a cap.
    pub(super) fn shows(&self) -> Option<u32> {
        let enough = self.refused.saturating_mul(1 << self.mistakes.min(16));
        let stood = self.accepted > 0 && self.accepted >= enough;
        (stood && (self.later >= Self::LATER || !self.long_wait)).then_some(self.accepted)
    }

    /// The burst is over, or was met by a paced gate.
    pub(super) fn forget(&mut self) {
        *self = Self { cap: self.cap, mistakes: self.mistakes, met: self.met, ..Self::default() };
    }

    /// From now on refusals are taken for a cap of so many.
    pub(super) fn believe(&mut self, cap: u32) {
        *self = Self { cap: cap.max(1), mistakes: self.mistakes, met: self.met, ..Self::default() };
    }

    /// The cap that refusals are taken for; zero if for a rate's.
    pub(super) fn cap(&self) -> u32 {
        self.cap
    }

    /// Whether refusals are taken for a cap.
    pub(super) fn is_cap(&self) -> bool {
        self.cap > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst of 60 at a second: `standing` left before the refused one, then `mixed` of both kinds in turn.
    fn burst(standing: u32, mixed: u32, hint: Option<f64>) -> Crowd {
        let mut crowd = Crowd::default();
        crowd.begin(1.0, 1.1, 60, hint);
        for _ in 0..standing {
            crowd.accepted(0.9);
        }
        for step in 0..mixed {
            let sent = 1.0 + f64::from(step) * 0.01;
            crowd.refused(sent, 50);
            crowd.accepted(sent + 0.005);
        }
        for _ in standing + 2 * mixed..59 {
            crowd.refused(1.01, 50);
        }
        assert!(crowd.is_over());
        crowd
    }

    #[test]
    fn what_a_cap_left_standing_is_its_size() {
        assert_eq!(burst(45, 4, Some(30.0)).shows(), Some(49), "later attempts found places");
        assert_eq!(burst(45, 0, Some(1.0)).shows(), Some(45), "and nobody ordered a long wait");
        assert_eq!(burst(45, 0, None).shows(), Some(45));
    }

    #[test]
    fn a_window_that_is_used_up_is_no_cap() {
        assert_eq!(burst(10, 4, Some(1.0)).shows(), None, "nearly all was refused");
        assert_eq!(burst(50, 0, Some(5.0)).shows(), None, "answers take long, but nothing came in later");
    }

    #[test]
    fn what_leaves_when_the_refusal_is_known_is_of_no_burst() {
        let mut crowd = Crowd::default();
        crowd.begin(1.0, 1.1, 3, None);
        for _ in 0..20 {
            crowd.accepted(1.2);
        }
        assert_eq!((crowd.is_over(), crowd.shows()), (false, None));
    }

    #[test]
    fn a_row_of_refusals_refutes_the_cap() {
        let mut crowd = Crowd::default();
        crowd.believe(50);
        for step in 0..100_u32 {
            let sent = f64::from(step);
            crowd.refused(sent, 50);
            assert!(crowd.is_cap());
            crowd.accepted(sent + 0.5);
        }
        for step in 0..8_u32 {
            crowd.refused(200.0 + f64::from(step), 50);
        }
        assert!(!crowd.is_cap());
    }

    #[test]
    fn a_refusal_of_few_at_once_refutes_the_cap_and_the_next_needs_more() {
        let mut crowd = Crowd::default();
        crowd.believe(40);
        crowd.refused(1.0, 20);
        assert!(crowd.is_cap(), "others may hold some of its places");
        crowd.refused(2.0, 19);
        assert!(!crowd.is_cap());
        let burst = |crowd: &mut Crowd, accepted: u32| {
            crowd.begin(3.0, 3.1, accepted + 10, None);
            for _ in 0..accepted {
                crowd.accepted(2.9);
            }
            for _ in 0..9 {
                crowd.refused(3.0, 10);
            }
            crowd.shows()
        };
        assert_eq!(burst(&mut crowd, 19), None);
        assert_eq!(burst(&mut crowd, 20), Some(20));
    }
}
