// One clip plays at a time; a line moves over its spectrogram, where a click listens from there.
for (const clip of document.querySelectorAll('.clip')) {
  const audio = clip.querySelector('audio'), line = clip.querySelector('i');
  const picture = clip.querySelector('.picture');
  const draw = () => {
    line.style.left = 100 * audio.currentTime / audio.duration + '%';
    if (!audio.paused) requestAnimationFrame(draw);
  };
  audio.addEventListener('play', () => {
    for (const other of document.querySelectorAll('audio')) if (other !== audio) other.pause();
    line.style.opacity = 1;
    draw();
  });
  audio.addEventListener('seeked', draw);
  picture.addEventListener('click', event => {
    const box = picture.getBoundingClientRect();
    audio.currentTime = audio.duration * (event.clientX - box.left) / box.width;
    audio.play();
  });
}
