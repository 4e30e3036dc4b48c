// The views: an overview of all areas, and one area. The address after # says which one is shown.
const PAGE_ROWS = 50;
const MOST_PICTURES = 120;
const main = document.getElementById('main');
const list = { words: '', order: 'id', page: 0 };
let overview = null;

const ORDERS = {
  id: ['Name', (area) => area.id],
  least: ['Fewest clear days', (area) => area.counts.c],
  most: ['Most clear days', (area) => -area.counts.c],
  failed: ['Most failed days', (area) => -area.counts.f],
  old: ['Longest without a clear day', (area) => (area.lastClear === null ? -Infinity : area.lastClear)],
};

function roomFor() {
  return Math.max(280, Math.min(main.clientWidth || 1200, 1208) - 34);
}

function tile(title, value) {
  return h('div', {}, h('dt', {}, title), h('dd', {}, value));
}

function summary() {
  const sum = { c: 0, p: 0, k: 0, e: 0, r: 0, f: 0 };
  let [first, last, periods] = [Infinity, -Infinity, 0];
  for (const area of data.areas) {
    for (const letter of Object.keys(sum)) sum[letter] += area.counts[letter];
    periods += (area.periods || []).length;
    if (area.days.day.length) {
      first = Math.min(first, area.days.day[0]);
      last = Math.max(last, area.days.day[area.days.day.length - 1]);
    }
  }
  const days = sum.c + sum.p + sum.k + sum.e;
  const empty = data.areas.filter((area) => !area.days.day.length && !(area.periods || []).length).length;
  const tiles = [
    ...(data.asked_dates === null ? [] : [tile('Dates asked for', data.asked_dates.replace('/', ' to ') || 'all')]),
    tile(data.all_areas === 1 ? 'Area' : 'Areas', whole.format(data.all_areas)),
    tile('Days made', whole.format(days)), tile('Clear', whole.format(sum.c)),
    tile('Partly clear', whole.format(sum.p)), tile('Cloudy', whole.format(sum.k)),
    tile('No data', whole.format(sum.e)), tile('Rejected', whole.format(sum.r)), tile('Failed', whole.format(sum.f)),
  ];
  if (empty) tiles.push(tile('Areas without a day', whole.format(empty)));
  if (periods) tiles.push(tile('Composites, computed images', whole.format(periods)));
  if (first <= last) tiles.push(tile('First day', date(first)), tile('Last day', date(last)));
  return section('Summary', h('dl', { class: 'tiles' }, tiles), h('p', { class: 'soft' },
    `A day is one image of one area. It is clear if at least ${data.clear_percent} % of the area is valid in every band, `
    + 'and cloudy if less than 20 % is. No data: at least half of the area was not seen.'));
}

function problems() {
  if (!data.problems.length) return null;
  const more = data.other_problems ? [h('li', {}, `${count(data.other_problems, 'more problem')}.`)] : [];
  const box = section('What this page could not read', h('ul', {}, data.problems.map((each) => h('li', {}, each)), more));
  box.classList.add('warn');
  return box;
}

function found() {
  const words = list.words.toLowerCase().split(/\s+/).filter(Boolean);
  const areas = data.areas.filter((area) => words.every((word) => area.id.toLowerCase().includes(word)));
  const key = ORDERS[list.order][1];
  if (list.order !== 'id') areas.sort((one, two) => (key(one) < key(two) ? -1 : key(one) > key(two) ? 1 : 0));
  return areas;
}

function clearestPicture(area) {
  let best = null;
  for (const [at, number] of Object.entries(area.days.picture || {})) {
    const share = (area.days.clear || [])[at] || 0;
    if (number >= 0 && (!best || share > best[1])) best = [number, share, at];
  }
  if (!best) return '';
  const { date: when } = dayFacts(area, best[2]);
  return h('img', { class: 'row-picture', src: embedded(best[0]), alt: `${area.id} on ${when}`, loading: 'lazy' });
}

function areaList() {
  const body = h('div', {});
  const status = h('p', { role: 'status', class: 'soft' });
  const pages = h('nav', { class: 'pages', 'aria-label': 'Pages of the list' });
  const show = () => {
    const areas = found();
    const last = Math.max(0, Math.ceil(areas.length / PAGE_ROWS) - 1);
    list.page = Math.min(list.page, last);
    const rows = areas.slice(list.page * PAGE_ROWS, (list.page + 1) * PAGE_ROWS).map((area) => [
      h('a', { href: `#area=${address(area.id)}` }, area.id), clearestPicture(area), area.days.day.length, area.counts.c,
      area.counts.p, area.counts.k, area.counts.e, area.counts.r, area.counts.f,
      area.lastClear === null ? 'never' : date(area.lastClear),
    ]);
    body.replaceChildren(table('Areas and their days', ['Area', 'Clearest day', '#Days', '#Clear', '#Partly', '#Cloudy',
      '#No data', '#Rejected', '#Failed', 'Last clear day'], rows));
    status.textContent = `${count(areas.length, 'area')} found.`;
    const turn = (by) => () => { list.page += by; show(); };
    pages.replaceChildren(
      h('button', { type: 'button', disabled: list.page === 0, onclick: turn(-1) }, 'Previous'),
      h('span', {}, `Page ${list.page + 1} of ${last + 1}`),
      h('button', { type: 'button', disabled: list.page === last, onclick: turn(1) }, 'Next'));
    pages.hidden = last === 0;
  };
  const again = (change) => (event) => { change(event.target.value); list.page = 0; show(); };
  const search = h('input', { type: 'search', id: 'search', value: list.words, autocomplete: 'off', oninput: again((text) => { list.words = text; }) });
  const order = h('select', { id: 'order', onchange: again((name) => { list.order = name; }) },
    Object.entries(ORDERS).map(([name, [title]]) => h('option', { value: name, selected: name === list.order }, title)));
  show();
  return section('Areas',
    h('div', { class: 'tools' }, h('label', {}, 'Search by name', search), h('label', {}, 'Order', order)), status, body, pages);
}

// A name that is no text, such as half of a character, has a number instead.
function address(id) {
  try {
    return encodeURIComponent(id);
  } catch {
    return `;${data.areas.findIndex((area) => area.id === id)}`;
  }
}

function areaAt(hash) {
  if (!hash.startsWith('#area=')) return null;
  const text = hash.slice(6);
  if (text.startsWith(';')) return data.areas[Number(text.slice(1))] || null;
  try {
    return byId.get(decodeURIComponent(text)) || null;
  } catch {
    return null;
  }
}

function gallery(area) {
  const all = Object.keys(area.days.picture || {}).map(Number);
  const shown = all.filter((at) => area.days.picture[at] >= 0);
  if (!all.length) return null;
  const box = h('ul', { class: 'gallery' });
  let next = 0;
  const more = h('button', { type: 'button', onclick: () => add() }, 'Show more pictures');
  const add = () => {
    shown.slice(next, next + MOST_PICTURES).forEach((at) => box.append(thumbnail(area, at)));
    next += MOST_PICTURES;
    more.hidden = next >= shown.length;
  };
  add();
  const others = all.length - shown.length;
  const note = others ? h('p', { class: 'soft' }, `The page contains pictures of the clearest days. ${count(others, 'other day')} `
    + 'have a picture beside it: the chart and the table of days open them.') : null;
  return [h('h3', {}, 'Pictures'), box, more, note];
}

function thumbnail(area, at) {
  const facts = dayFacts(area, at);
  const source = embedded(facts.picture);
  const image = h('img', { src: source, alt: '', loading: 'lazy' });
  const clear = facts.shares[0] === null ? '' : `${percent(facts.shares[0])} clear`;
  const button = h('button', { type: 'button', class: 'picture', onclick: () => enlarge(area, at) }, image,
    h('span', {}, facts.date), h('br', {}), clear);
  return h('li', {}, button);
}

function dayTable(area) {
  const rows = area.days.day.map((_, at) => {
    const facts = dayFacts(area, at);
    const scenes = facts.scenes ? facts.scenes.join(' ') : `${facts.sceneCount}`;
    const button = facts.picture === undefined ? ''
      : h('button', { type: 'button', class: 'link', onclick: () => enlarge(area, at) }, `Show ${facts.date}`);
    return [facts.date, facts.state, ...facts.shares.map(percent), scenes, facts.note, button];
  });
  return table(`Days of ${area.id}`, ['Day', 'State', ...SHARES.map(([, title]) => `#${title}`), 'Scenes', 'Note', 'Picture'], rows);
}

function periodTable(area) {
  const rows = area.periods.map((each) => {
    const path = each.has_picture ? pictureAddress(area, each.label) : null;
    const small = each.picture >= 0 ? h('img', { class: 'row-picture', src: embedded(each.picture), alt: '' }) : null;
    const link = path ? h('a', { href: path, target: '_blank', rel: 'noopener noreferrer' }, small, `PNG of ${each.label}`) : '';
    return [each.label, each.method, each.begin, each.end, each.days, percent(each.clear_percent), each.missing || '', link];
  });
  return [h('h3', {}, 'Composites and computed images'), table('Composites and computed images',
    ['Name', 'Method or name', 'From', 'To', '#Days', '#Clear', '#Days left out', 'Picture'], rows)];
}

// Why the area is not clear on more days, in one sentence.
function why(area) {
  const means = SHARES.slice(1).flatMap(([name, title]) => {
    const shares = (area.days[name] || []).filter((share) => share !== null);
    const mean = shares.reduce((sum, share) => sum + share, 0) / Math.max(1, shares.length);
    return mean >= 0.5 ? [`${title.toLowerCase()} ${percent(mean)}`] : [];
  });
  return means.length ? h('p', {}, `What is not clear, as mean share of the area: ${means.join(', ')}.`) : null;
}

function whyEmpty(area) {
  if (area.asked === undefined || (area.periods || []).length) return 'There is no day.';
  return area.asked ? `There is no day. Scenes were found for ${count(area.asked, 'image')}, which are not made yet.`
    : 'There is no day: no scene of the dates asked for meets this area.';
}

function areaView(area, isOnly) {
  const width = roomFor();
  const n = area.counts;
  const chart = area.days.day.length ? [
    h('h3', {}, 'Days'),
    h('p', {}, `${count(area.days.day.length, 'day')}: ${n.c} clear, ${n.p} partly clear, ${n.k} cloudy, `
      + `${n.e} without data, ${n.r} rejected, ${n.f} failed.`), why(area),
    dayChart(area, width, (at) => enlarge(area, at)),
    legend([...SHARES.map(([name, title]) => [name, title]), ['unknown', 'Not known'], ['rejected', 'Rejected'], ['failed', 'Failed']]),
    folded('Table of days', () => dayTable(area))] : [h('p', {}, whyEmpty(area))];
  const values = Object.keys(area.values || {}).flatMap((name) => [
    h('h3', {}, name), valueChart(area, name, width),
    folded(`Table of ${name}`, () => table(`${name} of ${area.id}`, ['Day', `#${name}`],
      area.values[name][0].map((day, at) => [date(day), `${area.values[name][1][at]}`])))]);
  if (values.length) {
    values.push(h('p', { class: 'soft' }, 'Hollow points: less than half of the area is clear. The line leaves them out.'));
  }
  const place = isOnly ? null : map([area], Math.min(width, 420), 260, null);
  return section(area.id, isOnly ? null : h('p', {}, h('a', { href: '#' }, 'Back to all areas')),
    ...chart, ...values, ...(gallery(area) || []), ...(area.periods ? periodTable(area) : []),
    ...(place ? [h('h3', {}, 'Outline'), place] : []));
}

function lines(title, all, shown, ...content) {
  if (!all) return null;
  return section(title, all > shown ? h('p', {}, `The first ${whole.format(shown)} of ${whole.format(all)}.`) : null, ...content);
}

function passes() {
  if (!data.passes.length) return null;
  const names = ['new', 'late', 'reprocessed', 'withdrawn', 'pending', 'written', 'failed'];
  const rows = [...data.passes].reverse().map((each) => [instant(each.started), each.found, ...names.map((name) => each.ids[name][0]),
    each.requests, each.bytes === null ? '' : megabytes(each.bytes)]);
  const named = ['late', 'reprocessed', 'withdrawn', 'pending', 'failed'].flatMap((name) => (
    [...data.passes].reverse().flatMap((each) => each.ids[name][1].map((id) => [id, name, instant(each.started)]))));
  return section('Passes that looked for changes',
    table('Passes, the last one first', ['Began', '#Scenes found', ...names.map((name) => `#${name}`), '#Requests', '#Read'], rows),
    named.length ? folded(`Scenes and slices that are late, reprocessed, withdrawn, pending or failed (${named.length})`,
      () => table('Scenes and slices', ['Id', 'What', 'Pass'], named)) : null);
}

function lastRun() {
  const run = data.record;
  if (!run) return null;
  const p = run.progress;
  const rows = [['State', run.state], ['Began', instant(run.started)], ['Last sign of life', instant(run.updated)],
    ['To compute', count(p.total, p.unit === 'rows' ? 'row' : 'slice')], ['Written', p.written], ['Failed', p.failed],
    ['Rejected', p.rejected], ['Up to date before', p.skipped]];
  if (run.error) rows.push(['Error', run.error]);
  const cost = p.requests ? table('Cost of the last run', ['Cost', '#Forecast', '#Needed'], [
    ['Requests', p.expected_requests ? whole.format(p.expected_requests) : '', whole.format(p.requests)],
    ['Read', p.expected_bytes ? megabytes(p.expected_bytes) : '', megabytes(p.bytes)]]) : null;
  return section('Last run', h('div', { class: 'facts' }, table('The last run', ['Fact', 'Value'], rows), cost));
}

function settingsView() {
  const rows = data.settings.length ? Object.entries(data.settings[0][0]) : [];
  const others = data.settings.slice(1).map(([settings, images]) => {
    const changed = Object.keys({ ...settings, ...data.settings[0][0] }).filter((key) => settings[key] !== data.settings[0][0][key]);
    return [changed.map((key) => `${key}: ${settings[key] === undefined ? 'not set' : settings[key]}`).join('; '), images];
  });
  const versions = data.versions.map(([software, version, images]) => [software || 'not known', version, images]);
  return [
    rows.length ? section('Settings', h('div', { class: 'facts' }, table(`Settings of ${count(data.settings[0][1], 'image')}`, ['Setting', 'Value'], rows)),
      others.length ? table('Images with other settings', ['What differs', '#Images'], others) : null) : null,
    section('Versions', h('p', {}, `s2cube ${data.version} wrote this page.`),
      versions.length ? h('div', { class: 'facts' },
        table('Versions that made the images', ['s2cube', 'Version of the data', '#Images'], versions)) : null)];
}

function facts() {
  return [
    lines('Failures', data.all_failures, data.failures.length, table('Slices that failed', ['Slice', 'Cause', 'Asset', 'Time'],
      data.failures.map((each) => [each.slice, each.error, each.asset, instant(each.time)]))),
    passes(),
    lines('Scenes that were left out', data.all_dropped, data.dropped.length,
      table('Unused scenes of the same granules', ['Scene', 'Used instead', 'Reason', '#Images'], data.dropped)),
    lines('Doubted scenes', data.all_doubted, data.doubted.length,
      h('p', {}, 'The pixels of these scenes contradict the offset that was added to them.'),
      table('Doubted scenes', ['Scene', '#Images', 'Images'], data.doubted.map(([scene, images, ids]) => [scene, images, ids.join(' ')]))),
    lastRun(), ...settingsView()];
}

function makeOverview() {
  const isOnly = data.areas.length === 1;
  const picture = map(data.areas, roomFor(), 560, isOnly ? null : (area) => { location.hash = `#area=${address(area.id)}`; });
  return [summary(), problems(), isOnly ? areaView(data.areas[0], true) : null, picture ? section('Map', picture) : null,
    data.areas.length > 1 ? areaList() : null, ...facts()].filter(Boolean);
}

// Show what the address names. A screen reader continues at the heading of the new view.
function show() {
  const area = data.areas.length > 1 ? areaAt(location.hash) : null;
  if (area) {
    main.replaceChildren(areaView(area, false));
    window.scrollTo(0, 0);
    main.querySelector('h2').setAttribute('tabindex', -1);
    main.querySelector('h2').focus({ preventScroll: true });
    return;
  }
  // The overview is kept, so that it is as it was when a reader comes back.
  overview = overview || makeOverview();
  main.replaceChildren(...overview);
}

const dialog = document.getElementById('enlarged');
const part = (name) => document.getElementById(`enlarged-${name}`);

function enlarge(area, at) {
  const facts_ = dayFacts(area, at);
  const [path, small] = [pictureAddress(area, facts_.label), embedded(facts_.picture)];
  const shown = Object.keys(area.days.picture).map(Number);
  const here = shown.indexOf(Number(at));
  const image = part('picture');
  const said = [facts_.state, reasons(facts_), facts_.note].filter(Boolean).join('. ');
  part('title').textContent = `${area.id}, ${facts_.date}`;
  part('text').textContent = `${said}.`;
  image.alt = `Picture of ${area.id} on ${facts_.date}: ${said}`;
  image.onerror = () => {
    image.onerror = null;
    part('text').textContent = `${said}. The PNG is not beside this page${small ? ': this is the small picture' : ''}.`;
    if (small) image.src = small; else image.removeAttribute('src');
  };
  if (path) image.src = path; else image.onerror();
  part('link').hidden = !path;
  if (path) part('link').href = path;
  for (const [name, by] of [['before', -1], ['after', 1]]) {
    const next = shown[here + by];
    part(name).disabled = next === undefined;
    part(name).onclick = () => enlarge(area, next);
  }
  if (!dialog.open) dialog.showModal();
}

document.getElementById('when').textContent = `Written ${instant(data.written)} by s2cube ${data.version}`;
window.addEventListener('hashchange', show);
show();
