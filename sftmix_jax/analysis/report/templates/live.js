// What is going on, read anew every few seconds. Every text is set as text.
const EVERY = 3000;  // milliseconds
const at = id => document.getElementById(id);

const duration = seconds => {
  if (seconds === null || seconds === undefined) return '';
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};
const row = cells => {
  const line = document.createElement('tr');
  for (const cell of cells) {
    const place = document.createElement('td');
    place.textContent = cell;
    line.append(place);
  }
  return line;
};
const listed = (place, lines) => place.replaceChildren(...lines.map(text => {
  const item = document.createElement('li');
  item.textContent = text;
  return item;
}));
const few = names => names.length > 2 ? `${names[0]} and ${names.length - 1} more` : names.join(', ');
const number = x => x === null ? 'not a number' : x.toFixed(3);
const losses = values => Object.entries(values || {}).map(([name, x]) => `${name} ${number(x)}`).join(', ');

const chart = stage => {
  const id = `now-${stage.id}`;
  let place = at(id);
  if (!place) {
    place = document.createElement('div');
    place.id = id;
    place.className = 'plot';
    at('now-losses').append(place);
    new ResizeObserver(() => place.layout && Plotly.Plots.resize(place)).observe(place);  // others come and go beside it
  }
  const data = Object.entries(stage.curve.losses).map(([name, y], i) => ({
    x: stage.curve.step, y, name, connectgaps: true, mode: stage.curve.step.length > FEW ? 'lines' : 'lines+markers',
    line: {color: COLOURS[i % COLOURS.length], width: 1.5},
  }));
  Plotly.react(place, data, {
    title: {text: stage.curve.title, font: {size: 13}}, height: 260,
    margin: {l: 46, r: 10, t: 36, b: 36}, legend: {orientation: 'h', y: -0.15},
  }, OPTIONS);
};

const show = now => {
  const count = state => now.stages.filter(stage => stage.state === state).length;
  const states = ['done', 'training', 'failed', 'stopped', 'waiting'].filter(count).map(state => `${count(state)} ${state}`);
  at('now-summary').textContent = `${now.stages.length} stages: ${states.join(', ')}; ` +
    `${now.device_hours.toFixed(2)} device-hours so far` +
    (now.dollars === null ? '' : `, $${now.dollars.toFixed(2)} at list prices`);
  at('now-stale').hidden = now.version === at('now').dataset.version;
  const order = {training: 0, failed: 1, stopped: 2, waiting: 3, done: 4};
  const stages = [...now.stages].sort((a, b) => order[a.state] - order[b.state]);
  at('now-stages').replaceChildren(...stages.map(s => row([
    s.name, few(s.experiments), s.state, s.steps ? `${s.step} of ${s.steps}` : s.step || '', losses(s.losses),
    s.tokens_per_second ? Math.round(s.tokens_per_second).toLocaleString('en') : '', duration(s.seconds_left),
    s.worker || '',
  ])));
  for (const stage of stages) {
    const drawn = at(`now-${stage.id}`);
    if (stage.state === 'training' && stage.curve) chart(stage);
    else if (drawn) drawn.remove();
  }
  at('now-scores').hidden = !now.scores.length;
  at('now-scores').tBodies[0].replaceChildren(...now.scores.slice(-40).reverse().map(s => row([
    s.experiment, s.stage, s.task, s.metric, number(s.value),
    s.low === null || s.high === null ? '' : `${s.low.toFixed(3)} to ${s.high.toFixed(3)}`,
  ])));
  listed(at('now-failures'), now.failures.map(f => `failed: ${f.job} of ${few(f.experiments)}: ${f.error}`));
  listed(at('now-notes'), now.notes);
};

const look = async () => {
  try {
    show(await (await fetch('live.json')).json());
  } catch (error) {
    at('now-summary').textContent = `no answer from the server: ${error.message}`;
  }
  setTimeout(look, EVERY);
};
look();
