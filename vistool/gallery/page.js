// Keyboard shortcuts and start-up.

const typing = (target) => target instanceof Element && target.matches('input, select, textarea, summary');
let spaceSince = 0;

function spaceTarget(target) {
  // Space presses the focused button; on a card it flips the picture.
  return !typing(target) && !(target instanceof Element && target.matches('button:not(.card), a'));
}

function flipHere() {
  if ($('detail').open) setMode((state.mode || 'overlay') === 'photo' ? 'overlay' : 'photo');
  else flip();
}

function gridKey(event) {
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns };
  if (typing(event.target) || !grid.shown.length) return false;
  const inside = $('grid').contains(event.target);
  if (event.key in moves) {
    const next = grid.cursor + moves[event.key];
    focusCard(!inside ? grid.cursor : next < 0 || next >= grid.shown.length ? grid.cursor : next);
    return true;
  }
  if (!inside) return false;
  if (event.key === 'Home') { focusCard(0); return true; }
  if (event.key === 'End') { focusCard(grid.shown.length - 1); return true; }
  return false;
}

function detailKey(event) {
  if (event.target.matches('input')) return false;
  const keys = {
    ArrowLeft: () => stepImage(-1), ArrowRight: () => stepImage(1),
    ArrowUp: () => pickMap(detail.map - 1), ArrowDown: () => pickMap(detail.map + 1),
    s: () => setMode(state.mode === 'slide' ? 'overlay' : 'slide'),
  };
  const action = keys[event.key] || keys[event.key.toLowerCase()];
  if (action) action();
  return Boolean(action);
}

// The image that is open, or the one whose card has the focus.
function taggable(target) {
  if ($('detail').open) return detail.image;
  return $('grid').contains(target) ? grid.shown[grid.cursor] : null;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if ($('keys').open || $('commands').open) return;
  let done = false;
  if (event.key === ' ' && spaceTarget(event.target)) {
    if (!event.repeat) { spaceSince = performance.now(); flipHere(); }
    done = true;
  } else if (event.key === '?' && !typing(event.target)) {
    $('keys').showModal();
    done = true;
  } else if (event.key.toLowerCase() === 't' && !typing(event.target) && taggable(event.target)) {
    toggleTag(taggable(event.target));
    done = true;
  } else if ($('detail').open) {
    done = detailKey(event);
  } else if (event.key === '/' && !typing(event.target)) {
    $('query').focus();
    $('query').select();
    done = true;
  } else if (event.key === 'Escape' && event.target === $('query')) {
    if (state.q) change({ q: '' });
    else focusCard(grid.cursor);
    done = true;
  } else {
    done = gridKey(event);
  }
  if (done) event.preventDefault();
}

function onKeyUp(event) {
  if (event.key !== ' ' || !spaceSince) return;
  // A button would treat the release as a click.
  if (spaceTarget(event.target)) event.preventDefault();
  if (performance.now() - spaceSince > 350) flipHere();
  spaceSince = 0;
}

function fromAddress() {
  readAddress();
  refresh();
  showDetail();
}

function start() {
  if (DATA.missing || !images.length) {
    $('title').textContent = 'data.js is missing';
    $('bar').hidden = true;
    return;
  }
  fillHeader();
  fillBar();
  fillViews();
  fillDetail();
  fillExport();
  addEventListener('scroll', soon(() => renderGrid(false)), { passive: true });
  addEventListener('resize', () => { layOut(); renderGrid(true); });
  addEventListener('hashchange', fromAddress);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', refresh);
  addEventListener('keydown', onKey);
  addEventListener('keyup', onKeyUp);
  $('skip').addEventListener('click', (event) => { event.preventDefault(); focusCard(grid.cursor); });
  fromAddress();
}

start();
