//! What every pump answers: whether it did anything.

/// Whether a pump did anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// Nothing to do; the caller may sleep.
    #[default]
    Idle,
    /// Something moved; pump again.
    Moved,
}

impl Progress {
    /// Whether something moved.
    #[must_use]
    #[inline]
    pub const fn moved(self) -> bool {
        matches!(self, Self::Moved)
    }
}

impl From<bool> for Progress {
    #[inline]
    fn from(moved: bool) -> Self {
        if moved { Self::Moved } else { Self::Idle }
    }
}

impl std::ops::BitOr for Progress {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self::from(self.moved() || other.moved())
    }
}

impl std::ops::BitOrAssign for Progress {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}
