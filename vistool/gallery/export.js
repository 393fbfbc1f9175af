// The selection taken out of the page: as a list and the command that draws it, and as a table.

// A path with a line break could smuggle a line into a shell; it cannot stand in a list either.
const plain = (text) => typeof text === 'string' && text !== '' && !/[\u0000-\u001f\u007f\u2028\u2029]/.test(text);
const AGAIN = DATA.again || null;
const fromDataset = Boolean(AGAIN && AGAIN.images.startsWith('@'));
const MOST_LINES = 500;

function shellWord(text) {
  const quoted = (part) => (/^[\w@%+=:,./-]+$/.test(part) ? part : `'${part.replace(/'/g, "'\\''")}'`);
  if (text.startsWith('~/')) return text.length > 2 ? `~/${quoted(text.slice(2))}` : text;
  return text === '' ? "''" : quoted(text);
}

const listed = (shown) => [...new Set(shown.map((image) => image.input).filter(plain))];
// A line that begins with # would be a comment of the list.
const listText = (paths) => paths.map((path) => `${path.startsWith('#') ? './' : ''}${path}\n`).join('');

// 3 4 5 6 9 → 3-6 9
function indexWords(shown) {
  const found = runsOf(new Set(shown.map((image) => image.index).filter(Number.isInteger)));
  return found.map(([first, last]) => (first === last ? first : `${first}${last === first + 1 ? ' ' : '-'}${last}`)).join(' ');
}

// Where the run was started, if that can be told from where the page lies.
function startFolder() {
  if (!AGAIN || !AGAIN.home || location.protocol !== 'file:') return null;
  try {
    const folder = decodeURIComponent(new URL(`../${AGAIN.home}`, location.href).pathname).replace(/(.)\/$/, '$1');
    return plain(folder) ? folder : null;
  } catch {
    return null; // a name that is not UTF-8
  }
}

function commandOf(shown) {
  if (!AGAIN || !AGAIN.words.every((word) => word === null || word === '' || plain(word)) || !/^(vis_[a-z]+|browse_dataset)$/.test(AGAIN.words[0])) return '';
  const folder = startFolder(), paths = listed(shown);
  const words = (images) => AGAIN.words.map((word) => shellWord(word ?? images)).join(' ');
  const lines = folder ? [`cd ${shellWord(folder)}`] : [];
  if (fromDataset) {
    lines.push(`${words(AGAIN.images)} --indices ${indexWords(shown)} -o selection`);
  } else {
    if (paths.length <= MOST_LINES) {
      let end = 'END';
      while (paths.includes(end)) end += '_';
      lines.push(`cat > selection.txt <<'${end}'`, `${listText(paths)}${end}`);
    }
    lines.push(`${words('selection.txt')} -o selection`);
  }
  return lines.join('\n');
}

function showCommand() {
  const shown = grid.shown, paths = listed(shown), command = commandOf(shown);
  const many = !fromDataset && paths.length > MOST_LINES;
  $('command-title').textContent = `${countText(shown.length)} ${shown.length === 1 ? 'image' : 'images'} as a command`;
  $('command-text').value = command;
  $('command-text').parentNode.hidden = !command;
  $('list-text').value = listText(paths);
  $('list-text').parentNode.hidden = !paths.length;
  const notes = [
    command && !startFolder() ? 'Run it in the folder in which the run was started.' : '',
    many && command ? 'Save the list there first: it is too long for a command.' : '',
    command ? '' : 'The run does not say by which command it was made; the list can be given to any command.',
    fromDataset ? 'The images are given by their indices in the dataset, so they keep their labels.' : '',
    paths.length < shown.length && !fromDataset ? `${countText(shown.length - paths.length)} of the images ${shown.length - paths.length === 1 ? 'has no path and is' : 'have no path and are'} left out.` : '',
  ];
  $('command-note').textContent = notes.filter(Boolean).join(' ');
  $('copied').textContent = '';
  $('commands').showModal();
  $('command-title').focus();
}

async function copyText(field, name) {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    document.execCommand('copy');  // browsers that keep the clipboard from pages on disk
  }
  $('copied').textContent = `The ${name} is on the clipboard.`;
}

function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function tableOf(shown) {
  const columns = [
    ['index', (image) => image.index], ['name', (image) => image.name], ['path', (image) => image.input],
    ['label', (image) => image.label && image.label[1]], ['label_id', (image) => image.label && image.label[0]],
  ];
  RUNS.forEach((run, number) => {
    const of = COMPARED ? ` (${run.name})` : '';
    const predicted = (place) => (image) => { const own = image.runs[number]; return own && own.prediction ? own.prediction[place] : null; };
    columns.push([`prediction${of}`, predicted(1)], [`prediction_id${of}`, predicted(0)], [`score${of}`, predicted(2)],
      [`verdict${of}`, (image) => image.verdicts[number]]);
  });
  METRICS.forEach(([name], number) => columns.push([name, (image) => metricOf(image, number)]));
  EMBEDDINGS.forEach((_, number) => ['x', 'y'].forEach((axis, place) => columns.push([number ? `${axis}_${number + 1}` : axis,
    (image) => (image.points[number] ? image.points[number][place] : null)])));
  const cell = (value) => {
    const text = value === null || value === undefined ? '' : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  const rows = shown.map((image) => columns.map(([, value]) => cell(value(image))).join(','));
  return `${[columns.map(([name]) => cell(name)).join(','), ...rows].join('\n')}\n`;
}

function fillExport() {
  $('command').addEventListener('click', showCommand);
  $('table').addEventListener('click', () => save('selection.csv', tableOf(grid.shown), 'text/csv'));
  $('copy-command').addEventListener('click', () => copyText($('command-text'), 'command'));
  $('copy-list').addEventListener('click', () => copyText($('list-text'), 'list'));
  $('save-list').addEventListener('click', () => save('selection.txt', $('list-text').value, 'text/plain'));
  $('commands-close').append(icon('close'));
  $('commands-close').addEventListener('click', () => $('commands').close());
}
